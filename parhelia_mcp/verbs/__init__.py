"""One verb, one file: Request, Result, run(ctx, request)."""
