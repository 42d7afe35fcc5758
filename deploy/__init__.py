"""How Albireo is run and watched: images, compose, Kubernetes, dashboards."""
