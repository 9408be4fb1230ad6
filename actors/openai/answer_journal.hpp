// Streamed answers that outlive their connection and their gateway: what was sent of each, kept in
// files under the client's request id.
#pragma once

#include "actors/openai/reply_sink.hpp"
#include "compute/tokenizer.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace hexgen::actors {

/// What an answer was made of, so that it can be gone on with.
struct journaled_request {
  std::string path, body;
  std::uint64_t seed = 0; // drawn for it
  std::string answer_id;  // "chatcmpl-…"
  std::int64_t created_s = 0;
};

/// One streamed answer: the sink of its job, and the source of whoever returns for the rest of it.
/// Thread-safe. Each payload is in the file before it is passed on.
class journaled_answer final : public reply_sink,
                               public std::enable_shared_from_this<journaled_answer> {
public:
  /// Begins a new file. Throws std::runtime_error naming it.
  journaled_answer(std::string file, journaled_request request);
  /// What an earlier process left. Throws std::runtime_error when its first line does not parse.
  explicit journaled_answer(std::string file);
  ~journaled_answer() override;

  [[nodiscard]] const journaled_request& request() const { return request_; }
  /// Tokens of the answer that are in the file: they are not sampled again.
  [[nodiscard]] std::vector<compute::token_id> emitted() const;
  /// The client: what follows the payload `after` goes there, instead of where it went before.
  /// False: the file holds fewer payloads.
  [[nodiscard]] bool attach(std::shared_ptr<reply_sink> to, std::uint64_t after,
                            const transport::http_headers& headers);
  /// True for one caller: nobody makes the rest of it, and there is a rest.
  [[nodiscard]] bool claim();
  void unclaim(); // it could not be begun
  /// Tokens that the next payload stands for; `last`: the answer ends with them.
  void taken(const std::vector<compute::token_id>& ids, bool last) override;
  /// Nobody has listened for `keep`: its job is given up, its file goes.
  [[nodiscard]] bool forgotten(std::chrono::steady_clock::duration keep);
  /// Another answer takes its name: it goes on, without a file.
  void unname();

  void whole(transport::http_reply reply) override;
  void expect_stream(const transport::http_headers& headers) override;
  void open(const transport::http_headers& headers) override;
  bool data(std::string payload) override;
  void close() override;
  /// The callback runs when it is forgotten.
  void on_closed(std::function<void()> callback) override;

private:
  void write(const std::string& line);
  void end(); // with the lock held

  const std::string file_;
  journaled_request request_;
  mutable std::mutex mutex_; // guards what follows
  int descriptor_ = -1;      // -1: no file any more
  std::uint64_t payloads_ = 0;
  std::vector<compute::token_id> ids_; // taken, not written yet
  bool has_job_ = false, opened_ = false, finished_ = false, complete_ = false;
  std::shared_ptr<reply_sink> to_; // nullptr: nobody listens
  std::uint64_t listener_ = 0;     // counts them
  std::chrono::steady_clock::time_point alone_since_;
  std::function<void()> give_up_;
};

/// The answers of one gateway. Thread-safe.
class answer_journal {
public:
  /// Reads what is there. One process at a time: throws std::runtime_error when the directory
  /// cannot be used or is in use.
  answer_journal(std::string directory, std::chrono::steady_clock::duration keep);
  ~answer_journal();
  answer_journal(const answer_journal&) = delete;
  answer_journal& operator=(const answer_journal&) = delete;

  /// A new answer; one of the same name is forgotten. nullptr: too many are kept, or the disk is
  /// full: it is served without. `name` has only letters, digits and -_.:
  [[nodiscard]] std::shared_ptr<journaled_answer> begin(const std::string& name,
                                                        journaled_request request);
  [[nodiscard]] std::shared_ptr<journaled_answer> find(const std::string& name);

private:
  void forget_old(); // with the lock held
  [[nodiscard]] std::string file_of(const std::string& name) const;

  const std::string directory_;
  const std::chrono::steady_clock::duration keep_;
  int lock_ = -1;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<journaled_answer>> answers_; // by name
};

} // namespace hexgen::actors
