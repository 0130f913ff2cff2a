"""What the published client of agent-infra's all-in-one sandbox (`agent-sandbox`) wants beyond the core's API.

Routes that both have in the same form are the core's.
"""
