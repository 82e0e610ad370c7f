"""Writers of event files and recordings that tests, the fuzzer and the benchmark use."""
