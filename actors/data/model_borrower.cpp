#include "actors/data/model_borrower.hpp"

#include "compute/files/mapped_file.hpp"
#include "compute/model_catalog.hpp"
#include "compute/model_digest.hpp"
#include "transport/proto/hexgen.pb.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace hexgen::actors {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t piece_bytes = 1U << 20;
constexpr std::size_t most_under_way = 8; // pieces: enough for a link of 8 Gbit/s and 8 ms
constexpr int most_files = 4096;
constexpr int most_ranges = 1 << 18;
constexpr std::uint64_t most_bytes = 1ULL << 44;

[[noreturn]] void fail(const std::string& why) {
  throw std::runtime_error("fetching the model: " + why);
}

bool plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '-' || c == '_' || c == '+';
         });
}

} // namespace

fs::path own_model_path(const wire::model_reference& served, const std::string& told) {
  if (!told.empty())
    return compute::resolve_model(told);
  const fs::path named(served.source);
  for (const auto& path : {named, compute::model_cache() / named.filename()})
    try {
      return compute::resolve_model(path.string());
    } catch (const compute::file_error&) { // not here
    }
  return {};
}

fs::path fetched_models() {
  return compute::model_cache() / "fetched";
}

struct model_borrower::local_file {
  local_file(const fs::path& path, std::uint64_t bytes)
      : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    struct stat now {};
    if (fd_ < 0 || ::fstat(fd_, &now) != 0)
      complain("cannot open");
    // Mapped elsewhere it must not shrink: a file of another size is another model's.
    if (static_cast<std::uint64_t>(now.st_size) > bytes)
      fail(path.string() + " is larger than the model's file: remove it");
    if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0)
      complain("cannot make room");
  }
  ~local_file() { ::close(fd_); }
  local_file(const local_file&) = delete;
  local_file& operator=(const local_file&) = delete;

  void write(std::uint64_t offset, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const auto n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        complain("cannot write");
      offset += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  /// Something there was never written.
  [[nodiscard]] bool has_hole(std::uint64_t offset, std::uint64_t bytes) const {
    const auto hole = ::lseek(fd_, static_cast<off_t>(offset), SEEK_HOLE);
    return hole >= 0 && static_cast<std::uint64_t>(hole) < offset + bytes;
  }

private:
  [[noreturn]] void complain(const std::string& what) const {
    fail(path_.string() + ": " + what + ": " + std::strerror(errno));
  }
  fs::path path_;
  int fd_;
};

struct model_borrower::question {
  proto::model_fetch what;
  std::vector<transport::peer_id> from;

  [[nodiscard]] transport::peer_id whom() const { return from.empty() ? source : from.back(); }
};

model_borrower::model_borrower(std::string digest, const fs::path& cache, asker ask,
                               neighbours others, std::chrono::milliseconds patience)
    : digest_(std::move(digest)), folder_(cache / digest_), ask_(std::move(ask)),
      others_(std::move(others)), patience_(patience) {
  if (!plain_name(digest_))
    fail("model_reference.digest is not one");
}

model_borrower::~model_borrower() = default;

fs::path model_borrower::open() {
  const std::lock_guard turn(turn_);
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error)
    fail(folder_.string() + ": " + error.message());
  exchange(std::vector<question>(1),
           [this](std::size_t, const proto::model_piece& m, auto) { take_layout(m); });
  files_.clear();
  for (const auto& f : layout_.files)
    files_.push_back(std::make_unique<local_file>(folder_ / f.name, f.bytes));
  fetch(layout_.skeleton, {}, nullptr);
  return layout_.folder ? folder_ : folder_ / layout_.files.front().name;
}

void model_borrower::take_layout(const proto::model_piece& m) {
  if (m.files_size() == 0 || m.files_size() > most_files || m.skeleton_size() > most_ranges ||
      (!m.folder() && m.files_size() != 1))
    fail("model_piece.files: " + std::to_string(m.files_size()) + " files");
  compute::model_layout got;
  got.folder = m.folder();
  std::set<std::string> names;
  for (const auto& f : m.files()) {
    if (!plain_name(f.name()) || !names.insert(f.name()).second || f.bytes() > most_bytes)
      fail("model_piece.files: a name or size that no model has");
    got.files.push_back({f.name(), f.bytes()});
  }
  for (const auto& r : m.skeleton()) {
    if (r.file() >= got.files.size() || r.offset() > got.files[r.file()].bytes ||
        r.bytes() > got.files[r.file()].bytes - r.offset())
      fail("model_piece.skeleton: a range outside its file");
    got.skeleton.push_back({r.file(), r.offset(), r.bytes()});
  }
  layout_ = std::move(got);
}

void model_borrower::bring(const compute::model_file& model, const compute::shard& part,
                           const compute::byte_progress& tell) {
  const std::lock_guard turn(turn_);
  std::vector<const compute::tensor_view*> unsure;
  std::vector<question> questions;
  for (const auto* t : compute::tensors_of(model, part)) {
    if (whole_.contains(t->name))
      continue;
    unsure.push_back(t);
    questions.emplace_back().what.set_tensor(std::string(t->name));
  }
  std::vector<std::string> digests(unsure.size());
  exchange(std::move(questions), [&](std::size_t i, const proto::model_piece& m, auto) {
    digests[i] = m.tensor_digest();
  });
  const auto is_whole = [&](std::size_t i) {
    return compute::to_hex(compute::tensor_digest(*unsure[i])) == digests[i];
  };
  std::vector<compute::file_range> missing;
  std::vector<std::size_t> fetched;
  for (std::size_t i = 0; i < unsure.size(); ++i) {
    const auto place = compute::place_in_file(unsure[i]->bytes);
    if (!place) { // made from numbers, not read
      mark_whole(unsure[i]->name, nullptr);
      continue;
    }
    const auto name = place->path.filename().string();
    const auto file = std::find_if(layout_.files.begin(), layout_.files.end(),
                                   [&](const auto& f) { return f.name == name; });
    if (file == layout_.files.end())
      fail(place->path.string() + " is not one of the model's files");
    const auto index = static_cast<std::uint32_t>(file - layout_.files.begin());
    const compute::file_range range{index, place->offset, unsure[i]->bytes.size()};
    if (!files_[index]->has_hole(range.offset, range.bytes) && is_whole(i)) {
      mark_whole(unsure[i]->name, &range);
      continue;
    }
    missing.push_back(range);
    fetched.push_back(i);
  }
  fetch(missing, others_ ? others_() : std::vector<transport::peer_id>(), tell);
  // What a neighbour had damaged is fetched once more, from the source.
  std::vector<std::size_t> wrong;
  for (std::size_t i = 0; i < fetched.size(); ++i) {
    if (is_whole(fetched[i]))
      mark_whole(unsure[fetched[i]]->name, &missing[i]);
    else
      wrong.push_back(i);
  }
  for (const std::size_t i : wrong) {
    const auto name = std::string(unsure[fetched[i]]->name);
    if (others_)
      fetch({missing[i]}, {}, nullptr);
    if (!others_ || !is_whole(fetched[i]))
      fail("tensor " + name + " came with other bytes than its digest");
    mark_whole(name, &missing[i]);
  }
}

void model_borrower::mark_whole(std::string_view tensor, const compute::file_range* range) {
  whole_.emplace(tensor);
  if (range == nullptr)
    return;
  const std::lock_guard guard(mutex_);
  held_[{range->file, range->offset}] = range->bytes;
}

bool model_borrower::holds(const compute::file_range& range) const {
  const std::lock_guard guard(mutex_);
  auto after = held_.upper_bound({range.file, range.offset});
  if (after == held_.begin())
    return false;
  const auto& [place, bytes] = *--after;
  const auto into = range.offset - place.second;
  return place.first == range.file && into <= bytes && range.bytes <= bytes - into;
}

model_borrower::origin model_borrower::came_from() const {
  const std::lock_guard guard(mutex_);
  return came_from_;
}

void model_borrower::fetch(const std::vector<compute::file_range>& ranges,
                           const std::vector<transport::peer_id>& others,
                           const compute::byte_progress& tell) {
  constexpr std::size_t most_neighbours = 4; // of one piece
  std::vector<question> wanted;
  std::size_t turn = 0; // tensors are shared out among the neighbours
  std::vector<compute::file_range> pieces;
  std::uint64_t total = 0, done = 0;
  for (const auto& r : ranges) {
    std::vector<transport::peer_id> from;
    for (std::size_t i = 0; i < std::min(others.size(), most_neighbours); ++i)
      from.push_back(others[(turn + i) % others.size()]);
    ++turn;
    for (std::uint64_t at = 0; at < r.bytes; at += piece_bytes) {
      const compute::file_range piece{r.file, r.offset + at, std::min(piece_bytes, r.bytes - at)};
      auto& q = wanted.emplace_back();
      q.from = from;
      auto& m = q.what;
      m.set_file(layout_.files[r.file].name);
      m.set_offset(piece.offset);
      m.set_bytes(piece.bytes);
      pieces.push_back(piece);
      total += piece.bytes;
    }
  }
  exchange(std::move(wanted),
           [&](std::size_t i, const proto::model_piece&, std::span<const std::byte> bytes) {
             if (bytes.size() != pieces[i].bytes)
               fail("model_piece: " + std::to_string(bytes.size()) + " bytes where " +
                    std::to_string(pieces[i].bytes) + " were asked for");
             files_[pieces[i].file]->write(pieces[i].offset, bytes);
             done += bytes.size();
             if (tell)
               tell(done, total);
           });
}

/// Each question is asked until it is answered, a few at a time. A neighbour that refuses or is
/// silent is asked no more for that piece; the source is asked again.
void model_borrower::exchange(std::vector<question> wanted, const taker& take) {
  using clock = std::chrono::steady_clock;
  std::map<std::uint64_t, std::pair<std::size_t, clock::time_point>> waiting; // index, when asked
  // Answers that come later belong to nobody.
  const std::shared_ptr<void> forget(nullptr, [&](void*) {
    const std::lock_guard guard(mutex_);
    answers_.clear();
  });
  std::size_t next = 0;
  auto came_at = clock::now();
  while (next < wanted.size() || !waiting.empty()) {
    const auto now = clock::now();
    std::map<std::uint64_t, std::shared_ptr<const transport::frame>> got;
    {
      std::unique_lock guard(mutex_);
      for (; waiting.size() < most_under_way && next < wanted.size(); ++next) {
        const auto id = next_id_++;
        wanted[next].what.set_id(id);
        wanted[next].what.set_digest(digest_);
        waiting[id] = {next, {}};
        answers_[id] = {wanted[next].whom(), nullptr};
      }
      for (auto& [id, a] : answers_)
        if (a.frame)
          got[id] = std::exchange(a.frame, nullptr);
      if (closed_)
        fail("this process is leaving");
      if (got.empty() && now - came_at > patience_)
        fail("no machine that has it answers");
    }
    for (const auto& [id, f] : got) {
      came_at = now;
      proto::model_piece m;
      m.ParseFromString(f->head); // on_piece did
      auto& q = wanted[waiting[id].first];
      if (!m.error().empty()) {
        if (q.from.empty())
          fail(m.error());
        q.from.pop_back();
        waiting[id].second = {}; // the next one is asked at once
        continue;
      }
      {
        const std::lock_guard guard(mutex_);
        (q.from.empty() ? came_from_.source : came_from_.others) += f->payload.size();
        answers_.erase(id);
      }
      take(waiting[id].first, m, f->payload.bytes());
      waiting.erase(id);
    }
    for (auto& [id, question] : waiting) {
      // On a slow link the first asked comes long before the last: silence counts, not age.
      if (now - std::max(question.second, came_at) <= patience_ / 4 &&
          question.second != clock::time_point{})
        continue;
      auto& q = wanted[question.first];
      if (question.second != clock::time_point{} && !q.from.empty())
        q.from.pop_back();
      transport::frame f;
      f.type = proto::MODEL_FETCH;
      f.head = q.what.SerializeAsString();
      {
        const std::lock_guard guard(mutex_);
        answers_[id].from = q.whom();
      }
      if (ask_(q.whom(), f))
        question.second = now;
      else if (!q.from.empty())
        q.from.pop_back();
    }
    std::unique_lock guard(mutex_);
    const auto any = [&] {
      return closed_ || std::any_of(answers_.begin(), answers_.end(),
                                    [](const auto& a) { return a.second.frame != nullptr; });
    };
    if (got.empty())
      came_.wait_for(guard, std::chrono::milliseconds(100), any);
  }
}

void model_borrower::on_piece(transport::peer_id from, std::shared_ptr<const transport::frame> f) {
  proto::model_piece m;
  if (!m.ParseFromString(f->head))
    return;
  {
    const std::lock_guard guard(mutex_);
    const auto waits = answers_.find(m.id());
    if (waits == answers_.end() || waits->second.frame || waits->second.from != from)
      return;
    waits->second.frame = std::move(f);
  }
  came_.notify_all();
}

void model_borrower::close() {
  {
    const std::lock_guard guard(mutex_);
    closed_ = true;
  }
  came_.notify_all();
}

} // namespace hexgen::actors
