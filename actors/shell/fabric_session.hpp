// A client's or operator's connection to a hexgen process, for the command line.
#pragma once

#include "transport/fabric.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <string>

namespace hexgen::actors {

class fabric_session {
public:
  struct reply {
    int status = 0; // HTTP status
    std::string body;
  };

  /// Connects. Throws std::runtime_error in plain words when nothing answers in `limit`.
  fabric_session(transport::fabric_options options, const std::string& address,
                 std::chrono::milliseconds limit);
  ~fabric_session();

  /// An OpenAI request. Every payload of a stream goes to `data` as it comes; returning false
  /// cancels. A whole reply is returned (its status tells). Throws when the connection is lost.
  reply request(const std::string& path, const std::string& body,
                const std::function<bool(const std::string&)>& data);
  /// JSON of /cluster.
  std::string status(std::chrono::milliseconds limit);
  /// Takes a node out; returns the coordinator's words. Throws when it refuses.
  std::string drain(const std::string& node, std::chrono::milliseconds limit);

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace hexgen::actors
