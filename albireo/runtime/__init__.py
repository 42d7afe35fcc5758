"""What every service process needs: settings, signals, health."""
