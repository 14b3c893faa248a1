"""Installing and running the platform. `local` runs it as processes of this machine, with no cluster at all."""
