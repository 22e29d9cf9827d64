"""Where sessions run. `base` holds the contract; every other module is one provider."""
