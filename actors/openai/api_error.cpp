#include "actors/openai/api_error.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace hexgen::actors {

api_error bad_parameter(const std::string& parameter, const std::string& message) {
  return {400, "invalid_request_error", message, parameter};
}

api_error error_of_status(int status, const std::string& code, const std::string& message,
                          int retry_after_s) {
  switch (status) {
  case 400:
    return {400, "invalid_request_error", message, {}, code};
  case 429:
    return {429, "rate_limit_error", message, {}, code, std::max(1, retry_after_s)};
  case 501:
    return {501, "not_supported_error", message, {}, code};
  case 503:
    return {503, "unavailable_error",   message,
            {},  "service_unavailable", std::max(1, retry_after_s)};
  default:
    return {status >= 400 && status < 600 ? status : 500, "server_error", message, {}, code};
  }
}

std::string error_json(const api_error& error) {
  nlohmann::ordered_json body;
  auto& object = body["error"];
  object["message"] = error.what();
  object["type"] = error.type;
  object["param"] = nullptr;
  if (!error.param.empty())
    object["param"] = error.param;
  object["code"] = error.status;
  if (!error.code.empty())
    object["code"] = error.code;
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

transport::http_reply error_reply(const api_error& error) {
  transport::http_reply reply;
  reply.status = error.status;
  reply.body = error_json(error);
  if (error.retry_after_s > 0)
    reply.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  return reply;
}

} // namespace hexgen::actors
