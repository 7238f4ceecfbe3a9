"""The development server: one's own functions on one's own machine, started again whenever a file is saved.

- served.py: what is served (a main.py for functions-framework, or modules), and loading it.
- serving.py: one process that serves it, from its first request to letting go of the runs in hand.
- supervising.py: the process above that one: it owns the port, watches the files, and starts the next one.
- listening.py: the socket. watching.py: which files were saved.
- trying.py: a curl that starts a run. examples.py: runs to look at.

It knows nothing of how requests are answered; the command line above it knows what people may ask of it.
"""
