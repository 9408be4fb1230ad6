#include "transport/http/http_text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>

namespace hexgen::transport {

namespace {

bool same_name(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

} // namespace

const std::string* find_header(const http_headers& headers, std::string_view name) {
  for (const auto& [key, value] : headers)
    if (same_name(key, name))
      return &value;
  return nullptr;
}

std::string_view http_status_text(int status) {
  switch (status) {
  case 200:
    return "OK";
  case 204:
    return "No Content";
  case 400:
    return "Bad Request";
  case 401:
    return "Unauthorized";
  case 403:
    return "Forbidden";
  case 404:
    return "Not Found";
  case 405:
    return "Method Not Allowed";
  case 408:
    return "Request Timeout";
  case 413:
    return "Payload Too Large";
  case 429:
    return "Too Many Requests";
  case 431:
    return "Request Header Fields Too Large";
  case 500:
    return "Internal Server Error";
  case 501:
    return "Not Implemented";
  case 503:
    return "Service Unavailable";
  default:
    return status < 400 ? "OK" : "Error";
  }
}

std::string http_head(int status, std::string_view content_type, const http_headers& headers,
                      std::optional<std::size_t> body_bytes, bool chunked, bool keep_alive) {
  std::string text = "HTTP/1.1 " + std::to_string(status) + " ";
  text += http_status_text(status);
  text += "\r\n";
  const auto add = [&](std::string_view name, std::string_view value) {
    if (value.find_first_of("\r\n") != std::string_view::npos)
      return;
    text.append(name).append(": ").append(value).append("\r\n");
  };
  if (!content_type.empty())
    add("Content-Type", content_type);
  if (body_bytes && status != 204)
    add("Content-Length", std::to_string(*body_bytes));
  if (chunked)
    add("Transfer-Encoding", "chunked");
  add("Connection", keep_alive ? "keep-alive" : "close");
  for (const auto& [name, value] : headers)
    add(name, value);
  return text + "\r\n";
}

std::string http_chunk(std::string_view data) {
  if (data.empty())
    return {};
  std::array<char, 20> size{};
  const auto end = std::to_chars(size.data(), size.data() + size.size(), data.size(), 16).ptr;
  std::string text(size.data(), end);
  text.append("\r\n").append(data).append("\r\n");
  return text;
}

http_headers cors_headers(const std::vector<std::string>& allowed, const std::string* origin) {
  if (origin == nullptr)
    return {};
  const bool any = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (!any && std::find(allowed.begin(), allowed.end(), *origin) == allowed.end())
    return {};
  return {{"Access-Control-Allow-Origin", any ? "*" : *origin},
          {"Access-Control-Expose-Headers", "x-request-id, Retry-After"},
          {"Vary", "Origin"}};
}

http_reply http_error(int status, std::string_view type, std::string_view message) {
  const nlohmann::json body = {
      {"error", {{"message", message}, {"type", type}, {"param", nullptr}, {"code", status}}}};
  http_reply reply;
  reply.status = status;
  reply.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return reply;
}

} // namespace hexgen::transport
