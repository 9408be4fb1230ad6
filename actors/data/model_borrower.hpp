// A local copy of the served model on a machine that does not have it: only the part that this
// machine runs, fetched over the fabric.
#pragma once

#include "actors/core/wire.hpp"
#include "compute/executor.hpp"
#include "compute/model_layout.hpp"
#include "transport/fabric.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace hexgen::proto {
class model_fetch;
class model_piece;
} // namespace hexgen::proto

namespace hexgen::actors {

/// Where this machine has the whole model: at `told` where that says something, else where the
/// coordinator has it or in this user's cache. Empty: nowhere. Throws compute::file_error when
/// `told` leads nowhere.
[[nodiscard]] std::filesystem::path own_model_path(const wire::model_reference& served,
                                                   const std::string& told);
/// The cache that a borrower's copies are kept in.
[[nodiscard]] std::filesystem::path fetched_models();

/// The copy is one sparse file (or folder) of the original's size and layout under `cache`, so that
/// it is opened as any other model and its unfetched tensors take no room on disk. Thread-safe; one
/// call fetches at a time.
class model_borrower {
public:
  /// Of who has the whole model, the coordinator's machine: its digests are what decides.
  static constexpr transport::peer_id source = 0;
  /// Sends a frame to `source` or to one of `others`; false: it is not connected now.
  using asker = std::function<bool(transport::peer_id, transport::frame)>;
  /// Machines that may hold some of the tensors. They are asked first, so that the source's link
  /// is not what all wait for; what they lend is compared as well.
  using neighbours = std::function<std::vector<transport::peer_id>()>;

  /// `digest`: of the model wanted. Gives up when nothing has come for `patience`.
  model_borrower(std::string digest, const std::filesystem::path& cache, asker ask,
                 neighbours others = {},
                 std::chrono::milliseconds patience = std::chrono::seconds(20));

  ~model_borrower();
  model_borrower(const model_borrower&) = delete;
  model_borrower& operator=(const model_borrower&) = delete;

  /// Fetches what opening the model needs, and names the path to open. Throws std::runtime_error.
  [[nodiscard]] std::filesystem::path open();
  /// Fetches those tensors of `part` that are not here yet; those that are, or have come, have the
  /// digest that the lender names. `model` was opened from open()'s path. Throws
  /// std::runtime_error.
  void bring(const compute::model_file& model, const compute::shard& part,
             const compute::byte_progress& tell);

  /// A MODEL_PIECE that `from` sent; any thread.
  void on_piece(transport::peer_id from, std::shared_ptr<const transport::frame> f);
  /// Whether a tensor that is here, and was compared, has these bytes; any thread.
  [[nodiscard]] bool holds(const compute::file_range& range) const;
  /// Bytes that came so far.
  struct origin {
    std::uint64_t source = 0, others = 0;
  };
  [[nodiscard]] origin came_from() const;
  /// Calls that wait, and later ones, throw.
  void close();

private:
  using taker =
      std::function<void(std::size_t, const proto::model_piece&, std::span<const std::byte>)>;
  struct local_file;
  /// A question and whom to ask before the source, the last one first.
  struct question;
  void exchange(std::vector<question> wanted, const taker& take);
  void mark_whole(std::string_view tensor, const compute::file_range* range);
  void take_layout(const proto::model_piece& m);
  void fetch(const std::vector<compute::file_range>& ranges,
             const std::vector<transport::peer_id>& others, const compute::byte_progress& tell);

  const std::string digest_;
  const std::filesystem::path folder_;
  const asker ask_;
  const neighbours others_;
  const std::chrono::milliseconds patience_;

  std::mutex turn_; // of the calls that fetch; guards what follows up to the next mutex
  compute::model_layout layout_;
  std::vector<std::unique_ptr<local_file>> files_;
  std::set<std::string, std::less<>> whole_; // tensors that are here and compared

  mutable std::mutex mutex_;
  std::condition_variable came_;
  std::uint64_t next_id_ = 1;
  struct answer {
    transport::peer_id from = source;              // who was asked last
    std::shared_ptr<const transport::frame> frame; // null: not yet
  };
  std::map<std::uint64_t, answer> answers_;
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> held_; // file, offset -> bytes
  origin came_from_;
  bool closed_ = false;
};

} // namespace hexgen::actors
