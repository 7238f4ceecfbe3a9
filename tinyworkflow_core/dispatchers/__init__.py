"""Dispatchers: the adapters of the dispatcher port. Imported one by one; each knows only the port."""
