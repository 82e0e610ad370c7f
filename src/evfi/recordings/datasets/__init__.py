"""One file per dataset layout."""
