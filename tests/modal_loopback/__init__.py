"""A Modal on this machine: the control plane and the worker that the real SDK talks to, with real processes.

It speaks plain h2c on 127.0.0.1 through the protobuf stubs in the modal wheel, so that every line of the SDK
(retries, paging, both sandbox generations, error mapping) runs without an account. It accepts what it cannot judge
(quotas, image builds, network lists) and can be told to fail (`faults`).
"""
