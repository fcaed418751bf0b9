"""Other queues doing the same fan-out as ours, on the same server in the same run. `make bench-peers`.

Each peer is a program of its own in an environment of its own under .peers/: one process publishes events
to one queue, whose worker adds each event to three further queues, whose workers do nothing. It is over when
the last of three deliveries of the last event has reached its handler. The events are those of our own
benchmark; the clock starts after a warm-up, so neither the start of a process nor a cold compiler counts.

None of the peers keeps order for a recipient, fences a worker that lost its work, or (BullMQ, dramatiq,
streaq and taskiq by default) knows an event that it has had before. Ours does all of that in these figures.
"""
