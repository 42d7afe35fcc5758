"""The bundled model, ``albireo/models/tiny``: its corpus, its training and its evaluation."""
