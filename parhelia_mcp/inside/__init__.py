"""What runs in the sandbox: the runner, its agents, the meter, the control socket, the ssh server."""
