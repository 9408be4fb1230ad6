// Gives the served model's files, piece by piece, to machines that do not have them.
#pragma once

#include "compute/model_layout.hpp"
#include "transport/fabric.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace hexgen::actors {

/// Thread-safe. Answers on a thread of its own, since it may wait for the disk.
class model_lender {
public:
  /// Whether these bytes of the files are here; any thread.
  using shelf = std::function<bool(const compute::file_range&)>;

  /// `path`: where `model` was opened from; `digest`: its model_digest. `holds` empty: all of it is
  /// here. `fabric` outlives this. Throws compute::file_error when the files cannot be read.
  model_lender(transport::fabric& fabric, std::shared_ptr<const compute::model_file> model,
               const std::filesystem::path& path, std::string digest, shelf holds = {});
  ~model_lender();
  model_lender(const model_lender&) = delete;
  model_lender& operator=(const model_lender&) = delete;

  /// A MODEL_FETCH; never blocks. Past `most_asked` it is dropped: who asked asks again.
  void on_fetch(transport::peer_id from, std::shared_ptr<const transport::frame> f);

  static constexpr std::size_t most_asked = 4096;

private:
  using question = std::pair<transport::peer_id, std::shared_ptr<const transport::frame>>;
  void answer_all();
  [[nodiscard]] transport::frame answer(const std::string& head);

  transport::fabric& fabric_;
  const std::shared_ptr<const compute::model_file> model_;
  const std::string digest_;
  const compute::model_layout layout_;
  const shelf holds_;
  std::map<std::string, transport::buffer> files_;    // mapped, by name
  std::map<std::string, std::string> tensor_digests_; // so far; the thread's
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<question> asked_;
  bool closing_ = false;
  std::thread thread_; // last: starts in the constructor
};

} // namespace hexgen::actors
