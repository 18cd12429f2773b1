"""Conservation laws of any torch model: `laws` finds and verifies them, `track` follows them in the user's training."""
