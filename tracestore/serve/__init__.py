"""The HTTP interface and the page: `create_app(settings)` gives an ASGI application, `tracestore serve` runs it.

Order of what a request passes, outermost first: log and metrics, last resort for errors, security headers, host, token, body size, places,
places of exports, size of the answer.
"""
