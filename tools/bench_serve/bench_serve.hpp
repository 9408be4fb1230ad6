// The verb `hexgen bench`.
#pragma once

namespace hexgen::tools {

/// `argv[0]` is the verb; flags follow. Returns the exit code: 0 when at least one request was
/// answered, 1 when none was, 2 for a wrong flag.
int bench_main(int argc, char** argv);

} // namespace hexgen::tools
