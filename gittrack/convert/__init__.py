"""Moving in and out: other trackers' files and servers, read into runs and models, and written from them.

``source`` says what a tracker has to answer to be read, one module per format answers it, and ``importer`` writes what
they say through the one way that runs are written.  ``tables`` and ``mlflow_export`` are the way out.  Nothing that a
foreign file says is trusted: names pass ``track.limits``, paths stay in their folder, sizes are bounded.
"""
