"""What every service of this project shares: who asks, limits on requests, errors as JSON, the look of the pages."""
