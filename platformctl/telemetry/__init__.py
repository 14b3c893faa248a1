"""What the processes tell about themselves: metrics, the audit log, trace context, logs."""
