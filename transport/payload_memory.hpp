// Memory for payloads: large pieces are kept and used again, since fresh pages cost more than
// copying them full.
#pragma once

#include <cstddef>
#include <memory>

namespace hexgen::transport {

/// Uninitialised, aligned to 64 bytes. Any thread may take and let go.
[[nodiscard]] std::shared_ptr<std::byte[]> take_payload_memory(std::size_t bytes);

/// Frees what is kept and was not used since the last call. Called every few seconds.
void trim_payload_memory();

/// Bytes that are kept for use again, for tests.
[[nodiscard]] std::size_t kept_payload_bytes();

} // namespace hexgen::transport
