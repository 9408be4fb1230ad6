// The text of HTTP answers: status lines, heads, chunks, cross-origin headers.
#pragma once

#include "transport/http/http_server.hpp"

namespace hexgen::transport {

[[nodiscard]] std::string_view http_status_text(int status);

/// The head of an answer, up to and with the empty line. `body_bytes`: nullopt for a chunked body
/// (or one that ends with the connection, for HTTP/1.0 clients). Header values with line breaks are
/// left out.
[[nodiscard]] std::string http_head(int status, std::string_view content_type,
                                    const http_headers& headers,
                                    std::optional<std::size_t> body_bytes, bool chunked,
                                    bool keep_alive);

/// One chunk of a chunked body. Empty data gives an empty text: it would end the body.
[[nodiscard]] std::string http_chunk(std::string_view data);

/// Headers that let the page of `origin` read the answer; empty when it may not.
[[nodiscard]] http_headers cors_headers(const std::vector<std::string>& allowed,
                                        const std::string* origin);

} // namespace hexgen::transport
