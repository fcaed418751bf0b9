"""What `notifier demo` and `notifier dev` bring along: a broker, a mailbox server, a push service."""
