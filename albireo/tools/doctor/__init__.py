"""The checks of ``albireo doctor``, each of which returns findings; ``examine`` runs them all."""
