// A refusal that the client reads: the error object of OpenAI's API with its HTTP status.
#pragma once

#include "transport/http/http_server.hpp"

#include <stdexcept>
#include <string>

namespace hexgen::actors {

struct api_error : std::runtime_error {
  int status;
  std::string type;
  std::string param;     // empty: null
  std::string code;      // empty: the status as a number
  int retry_after_s = 0; // 0: no Retry-After

  api_error(int http_status, std::string error_type, const std::string& message,
            std::string parameter = {}, std::string slug = {}, int retry_s = 0)
      : std::runtime_error(message), status(http_status), type(std::move(error_type)),
        param(std::move(parameter)), code(std::move(slug)), retry_after_s(retry_s) {}
};

/// 400 invalid_request_error naming `parameter`.
[[nodiscard]] api_error bad_parameter(const std::string& parameter, const std::string& message);
/// The error that goes with a status that a replica or the router gave.
[[nodiscard]] api_error error_of_status(int status, const std::string& code,
                                        const std::string& message, int retry_after_s);

/// {"error": {"message", "type", "param", "code"}}
[[nodiscard]] std::string error_json(const api_error& error);
[[nodiscard]] transport::http_reply error_reply(const api_error& error);

} // namespace hexgen::actors
