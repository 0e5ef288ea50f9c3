"""Pure decisions and documents of a rollout: what the Ray Serve cluster should run. No clients."""
