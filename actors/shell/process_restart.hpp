// The last resort against a device thread that does not come back: this process starts anew.
#pragma once

#include <string>
#include <vector>

namespace hexgen::actors {

/// The words of this process's command line.
[[nodiscard]] std::vector<std::string> own_command();

/// Replaces this process by a new run of the same program with the same arguments: same pid, same
/// parent, no thread survives. Locks and destructors are not waited for. Exits with 75 when that
/// fails. The new run finds `why` with restart_reason().
[[noreturn]] void restart_process(const std::string& why);

/// Why this run replaced the one before it (at most 512 bytes); empty: it did not. Read once:
/// later runs do not inherit it.
[[nodiscard]] std::string restart_reason();

} // namespace hexgen::actors
