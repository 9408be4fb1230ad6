// Exchange between the ranks of one stage. The actors room injects the implementation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

namespace hexgen::compute {

/// Thrown out of a collective when its generation was aborted or its deadline passed. The
/// generation is poisoned: no later operation of it may succeed.
class collective_aborted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The ranks of one stage, seen from one rank. Called only from that rank's device thread, in the
/// same order on every rank. Blocks at most until the operation's deadline or an abort.
class collective {
 public:
  virtual ~collective() = default;
  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int degree() const = 0;
  /// Every rank's `mine` to every rank: `all[r]` receives rank r's bytes (all[rank()] too). Sizes
  /// are known to all ranks beforehand and may differ between them, zero included.
  virtual void all_gather(std::span<const std::byte> mine,
                          std::span<const std::span<std::byte>> all) = 0;
  /// The leader's (rank 0) `bytes` to every rank, in place.
  virtual void broadcast(std::span<std::byte> bytes) = 0;
};

/// Degree 1: all operations are copies.
class solo_collective final : public collective {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int degree() const override { return 1; }
  void all_gather(std::span<const std::byte> mine,
                  std::span<const std::span<std::byte>> all) override;
  void broadcast(std::span<std::byte>) override {}
};

} // namespace hexgen::compute
