"""Who serves a request: addresses, the registry of what satellites export, and the choice among them.

Pure: no IO and no clock; time (`now`, monotonic seconds) and random bits are arguments.

    names       what satellites, services and labels may be called
    spec        ServiceSpec, and its JSON form
    hosts       host names in requests
    addressing  request -> target
    selector    label selectors
    gate        concurrency and queue limits of a service
    outlier     ejection of endpoints that fail
    endpoint    one service of one satellite, and its tunnels
    registry    attached satellites and their endpoints
    balance     the choice among endpoints
    route       target -> Route | Denied
    snapshot    the registry as data
"""
