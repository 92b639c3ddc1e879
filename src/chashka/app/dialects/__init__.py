"""Other programs' languages: requests as existing clients send them, translated to the same jobs and back (docs/dialects.md).

``openai`` and ``a1111`` each have ``router(service)``. They translate and decide nothing: what is checked, refused, drawn and kept
is the service's, and the same as for the native API.
"""
