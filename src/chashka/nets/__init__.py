"""Networks. ``configs`` is plain data without torch; every other module needs the extra [torch]."""
