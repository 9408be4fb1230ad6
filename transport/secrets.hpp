// Secrets of the fabric: making, keeping and reading them.
#pragma once

#include <filesystem>
#include <string>

namespace hexgen::transport {

/// 256 random bits from the system, as 64 hexadecimal digits.
[[nodiscard]] std::string generate_token();

/// First line of the file, without blanks around it. Throws std::runtime_error naming the file
/// when it cannot be read, is empty, or is longer than 4 KiB.
[[nodiscard]] std::string read_token(const std::filesystem::path& file);

/// Writes the file anew with mode 0600 (a half-written or readable one never exists under its
/// name); makes the folder, mode 0700, when missing. Throws std::runtime_error naming the file.
void write_token(const std::filesystem::path& file, const std::string& token);

/// Why a secret is weak, in plain words; empty when it is not. Short secrets still work: the key
/// is derived slowly, but a stranger who records a hand-shake can guess at leisure.
[[nodiscard]] std::string weakness(const std::string& secret);

} // namespace hexgen::transport
