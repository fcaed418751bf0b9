"""The HTTP API: publishing for app services, profiles and operations for backends, the inbox for users.

app              the application: what is shared, and all routes together
server           the HTTP server around it: connections, time-outs, a graceful end
middleware       what every request goes through: request id, limits, headers, counting
access           API keys and users' tokens
problems         every error in one form (RFC 9457)
"""
