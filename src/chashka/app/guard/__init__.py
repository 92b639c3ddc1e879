"""Who gets in and what may be asked: hosts and origins, keys and sessions, the policy."""
