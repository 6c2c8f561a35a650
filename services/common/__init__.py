"""What the services of this project share: users and roles, limits on requests, errors as JSON, and the look of the pages."""
