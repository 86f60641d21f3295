"""The field's table: methods that train the policy beside those that correct its answers, and what each costs."""
