# What Marketplace tests the module with; it adds project_id itself.
goog_cm_deployment_name = "aisandbox-test"
