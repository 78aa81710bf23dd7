"""What a consortium agrees and what a site allows: plan, policy, budget, costs, certificate."""
