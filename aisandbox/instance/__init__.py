"""Instance side: what runs on the deployed appliance."""
