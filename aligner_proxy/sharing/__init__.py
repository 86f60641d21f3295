"""What several gateways share through Redis: corrections, who computes one right now, and what tenants have used."""
