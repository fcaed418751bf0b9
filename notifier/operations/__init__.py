"""What operators look at and mend, for the command line and the HTTP API alike.

queues           what lies where, and who serves it
dead_letters     reading the dead letters of all partitions in the order of time
mending          redriving and discarding them
exposition       the same and what was counted, for Prometheus
"""
