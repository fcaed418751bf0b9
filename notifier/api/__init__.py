"""The HTTP API: publishing for app services, profiles and operations for backends, the inbox for users.

app              the application: what is shared, and all routes together
shared           what the routes share
server           the HTTP server around it, and its graceful end
connection       sizes and times of one connection
middleware       what every request goes through: request id, headers, counting
bodies           the size of a body
access           API keys and users' tokens
problems         every error in one form (RFC 9457)
health           /livez, /readyz, /metrics
events           POST /v1/events
cloud_events     CloudEvents as events
idempotency      the header Idempotency-Key
"""
