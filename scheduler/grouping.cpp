#include "scheduler/grouping.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace hexgen::scheduler {

namespace {

int region_of(const pool& pool, int machine) {
  return pool.region_of_node(pool.machines()[static_cast<std::size_t>(machine)].node);
}

int count_of(const pool& pool, int machine) {
  return static_cast<int>(pool.machines()[static_cast<std::size_t>(machine)].devices.size());
}

void add_part(device_group& group, group_part part) {
  if (part.count == 0)
    return;
  const auto at = std::lower_bound(
      group.begin(), group.end(), part,
      [](const group_part& a, const group_part& b) { return a.machine < b.machine; });
  if (at != group.end() && at->machine == part.machine)
    at->count += part.count;
  else
    group.insert(at, part);
}

void take_part(device_group& group, group_part part) {
  for (auto at = group.begin(); at != group.end(); ++at)
    if (at->machine == part.machine) {
      at->count -= part.count;
      if (at->count <= 0)
        group.erase(at);
      return;
    }
}

/// Machines of each region, most capable kinds first, so that like gathers with like.
std::map<int, std::vector<int>> machines_by_region(const pool& pool) {
  std::map<int, std::vector<int>> found;
  for (int i = 0; i < static_cast<int>(pool.machines().size()); ++i)
    found[region_of(pool, i)].push_back(i);
  for (auto& [region, machines] : found)
    std::stable_sort(machines.begin(), machines.end(), [&](int a, int b) {
      const auto& x = pool.machines()[static_cast<std::size_t>(a)];
      const auto& y = pool.machines()[static_cast<std::size_t>(b)];
      return x.kind != y.kind ? x.kind < y.kind : x.devices.size() > y.devices.size();
    });
  return found;
}

/// Chunks in order, a new group whenever the last one can hold the model; the rest joins the last.
std::vector<device_group> gather(const layout_book& book, const std::vector<group_part>& chunks) {
  const double need = book.costs().model().layers;
  std::vector<device_group> groups;
  device_group now;
  for (const auto& chunk : chunks) {
    add_part(now, chunk);
    if (book.layer_room(now) >= need) {
      groups.push_back(std::move(now));
      now.clear();
    }
  }
  if (!now.empty()) {
    if (groups.empty())
      groups.emplace_back();
    for (const auto& part : now)
      add_part(groups.back(), part);
  }
  return groups;
}

std::vector<device_group> chunked(const layout_book& book, int size) {
  const auto& pool = book.costs().devices();
  std::vector<device_group> groups;
  device_group strays; // of regions too small to hold the model
  for (const auto& [region, machines] : machines_by_region(pool)) {
    std::vector<group_part> chunks;
    for (const int machine : machines)
      for (int left = count_of(pool, machine); left > 0; left -= size)
        chunks.push_back({machine, std::min(size, left)});
    auto made = gather(book, chunks);
    if (made.size() == 1 && book.layer_room(made.front()) < book.costs().model().layers) {
      for (const auto& part : made.front())
        strays.push_back(part);
      continue;
    }
    groups.insert(groups.end(), made.begin(), made.end());
  }
  for (auto& group : gather(book, strays))
    groups.push_back(std::move(group));
  return groups;
}

/// Whole machines of one kind, wherever they are, gathered until they hold the model; kinds that
/// cannot hold it alone together.
std::vector<device_group> by_kind(const layout_book& book) {
  const auto& pool = book.costs().devices();
  std::map<std::pair<int, int>, std::vector<group_part>> alike; // by kind and count of devices
  for (const auto& [region, machines] : machines_by_region(pool))
    for (const int machine : machines)
      alike[{pool.machines()[static_cast<std::size_t>(machine)].kind, count_of(pool, machine)}]
          .push_back({machine, count_of(pool, machine)});
  std::vector<device_group> groups;
  std::vector<group_part> strays;
  for (const auto& [what, machines] : alike) {
    auto made = gather(book, machines);
    if (made.size() == 1 && book.layer_room(made.front()) < book.costs().model().layers)
      strays.insert(strays.end(), made.front().begin(), made.front().end());
    else
      groups.insert(groups.end(), made.begin(), made.end());
  }
  for (auto& group : gather(book, strays))
    groups.push_back(std::move(group));
  return groups;
}

/// Lloyd's algorithm on the rows of the regions' latency matrix. With as many centres as regions
/// differ, it gives one group per region; fewer centres join near regions.
std::vector<device_group> clustered(const layout_book& book, std::size_t centres) {
  const auto& pool = book.costs().devices();
  const auto machines = pool.machines().size();
  std::vector<std::vector<double>> rows(machines);
  for (std::size_t i = 0; i < machines; ++i)
    for (std::size_t j = 0; j < machines; ++j) {
      const int a = pool.machines()[i].node, b = pool.machines()[j].node;
      const auto link = pool.between_nodes(a, b);
      rows[i].push_back(a == b ? 0 : link.usable() ? link.alpha_s : 10.0);
    }
  const auto distance = [&](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
  };
  // Centres start at the rows farthest from those already chosen.
  std::vector<std::vector<double>> middles{rows.front()};
  while (middles.size() < std::min(centres, machines)) {
    std::size_t far = 0;
    double most = -1;
    for (std::size_t i = 0; i < machines; ++i) {
      double least = 1e300;
      for (const auto& middle : middles)
        least = std::min(least, distance(rows[i], middle));
      if (least > most) {
        most = least;
        far = i;
      }
    }
    middles.push_back(rows[far]);
  }
  std::vector<std::size_t> of(machines, 0);
  for (int round = 0; round < 20; ++round) {
    bool changed = false;
    for (std::size_t i = 0; i < machines; ++i) {
      std::size_t nearest = 0;
      for (std::size_t c = 1; c < middles.size(); ++c)
        if (distance(rows[i], middles[c]) < distance(rows[i], middles[nearest]))
          nearest = c;
      changed = changed || of[i] != nearest;
      of[i] = nearest;
    }
    for (std::size_t c = 0; c < middles.size(); ++c) {
      std::vector<double> sum(machines, 0);
      double count = 0;
      for (std::size_t i = 0; i < machines; ++i)
        if (of[i] == c) {
          for (std::size_t j = 0; j < machines; ++j)
            sum[j] += rows[i][j];
          ++count;
        }
      if (count > 0) {
        for (auto& value : sum)
          value /= count;
        middles[c] = std::move(sum);
      }
    }
    if (!changed)
      break;
  }
  std::vector<device_group> groups(middles.size());
  for (std::size_t i = 0; i < machines; ++i)
    add_part(groups[of[i]], {static_cast<int>(i), count_of(pool, static_cast<int>(i))});
  std::erase_if(groups, [](const device_group& group) { return group.empty(); });
  return groups;
}

grouping with_choice(const std::vector<device_group>& groups, float choice) {
  grouping made;
  for (const auto& group : groups)
    made.genes.push_back({group, choice});
  return made;
}

bool same_region(const pool& pool, const device_group& a, const device_group& b) {
  return region_of(pool, a.front().machine) == region_of(pool, b.front().machine);
}

/// A random share of a group's parts, at least one device, never all.
device_group cut(const device_group& group, random_source& random) {
  int total = 0;
  for (const auto& part : group)
    total += part.count;
  device_group taken;
  if (total < 2)
    return taken;
  if (group.size() > 1 && random.below(2) == 0) {
    // Whole machines.
    for (const auto& part : group)
      if (random.below(2) == 0)
        taken.push_back(part);
    if (taken.size() == group.size())
      taken.pop_back();
    if (taken.empty())
      taken.push_back(group[random.below(static_cast<std::uint32_t>(group.size()))]);
    return taken;
  }
  for (const auto& part : group) {
    const int half = random.below(2) == 0 ? part.count / 2 : (part.count + 1) / 2;
    if (half > 0)
      taken.push_back({part.machine, half});
  }
  int cut_total = 0;
  for (const auto& part : taken)
    cut_total += part.count;
  return cut_total == total ? device_group{} : taken;
}

class mutation {
public:
  mutation(grouping& individual, const layout_book& book, random_source& random, bool across)
      : it_(individual), pool_(book.costs().devices()), random_(random), across_(across) {}

  bool run() {
    if (it_.genes.empty())
      return adopt_idle();
    const auto draw = random_.below(100);
    if (draw < 25)
      return relayout();
    if (draw < 50)
      return move();
    if (draw < 65)
      return swap();
    if (draw < 77)
      return merge();
    if (draw < 92)
      return split();
    if (draw < 97)
      return adopt_idle() || move();
    return retire();
  }

private:
  std::size_t pick(std::size_t count) { return random_.below(static_cast<std::uint32_t>(count)); }

  float fresh_choice() { return static_cast<float>(random_.below(7)) / 6; }

  /// Another gene that may exchange devices with `one`; its own number if there is none.
  std::size_t partner(std::size_t one) {
    std::vector<std::size_t> fit;
    const bool far = across_ && random_.below(20) == 0;
    for (std::size_t i = 0; i < it_.genes.size(); ++i)
      if (i != one && (far || same_region(pool_, it_.genes[one].group, it_.genes[i].group)))
        fit.push_back(i);
    return fit.empty() ? one : fit[pick(fit.size())];
  }

  bool relayout() {
    auto& gene = it_.genes[pick(it_.genes.size())];
    const float before = gene.choice;
    gene.choice = fresh_choice();
    return gene.choice != before;
  }

  bool move() {
    const auto from = pick(it_.genes.size()), to = partner(from);
    if (from == to)
      return false;
    auto part = it_.genes[from].group[pick(it_.genes[from].group.size())];
    constexpr int sizes[] = {1, 2, 4};
    part.count = std::min(part.count, sizes[random_.below(3)]);
    take_part(it_.genes[from].group, part);
    add_part(it_.genes[to].group, part);
    drop_empty();
    return true;
  }

  bool swap() {
    const auto a = pick(it_.genes.size()), b = partner(a);
    if (a == b)
      return false;
    auto& x = it_.genes[a].group;
    auto& y = it_.genes[b].group;
    auto give = x[pick(x.size())], get = y[pick(y.size())];
    if (give.machine == get.machine)
      return false;
    constexpr int sizes[] = {1, 2, 4, 8};
    const int count = sizes[random_.below(4)];
    give.count = std::min(give.count, count);
    get.count = std::min(get.count, count);
    take_part(x, give);
    take_part(y, get);
    add_part(x, get);
    add_part(y, give);
    return true;
  }

  bool merge() {
    const auto a = pick(it_.genes.size()), b = partner(a);
    if (a == b)
      return false;
    for (const auto& part : it_.genes[b].group)
      add_part(it_.genes[a].group, part);
    it_.genes[a].choice = fresh_choice();
    it_.genes.erase(it_.genes.begin() + static_cast<std::ptrdiff_t>(b));
    return true;
  }

  bool split() {
    const auto one = pick(it_.genes.size());
    const auto taken = cut(it_.genes[one].group, random_);
    if (taken.empty())
      return false;
    for (const auto& part : taken)
      take_part(it_.genes[one].group, part);
    it_.genes.push_back({taken, fresh_choice()});
    return true;
  }

  /// Idle devices join a group of their region or form one.
  bool adopt_idle() {
    const auto idle = idle_parts(pool_, it_);
    if (idle.empty())
      return false;
    const auto part = idle[pick(idle.size())];
    std::vector<std::size_t> fit;
    for (std::size_t i = 0; i < it_.genes.size(); ++i)
      if (same_region(pool_, it_.genes[i].group, {part}))
        fit.push_back(i);
    const auto at = pick(fit.size() + 1);
    if (at == fit.size()) {
      it_.genes.push_back({{part}, fresh_choice()});
      return true;
    }
    add_part(it_.genes[fit[at]].group, part);
    return true;
  }

  /// A group's devices become idle: a slow pipeline may cost more deadlines than it keeps.
  bool retire() {
    if (it_.genes.size() < 2)
      return false;
    it_.genes.erase(it_.genes.begin() + static_cast<std::ptrdiff_t>(pick(it_.genes.size())));
    return true;
  }

  void drop_empty() {
    std::erase_if(it_.genes, [](const gene& g) { return g.group.empty(); });
  }

  grouping& it_;
  const pool& pool_;
  random_source& random_;
  bool across_;
};

} // namespace

std::vector<chosen_layout> choose_layouts(layout_book& book, const grouping& from,
                                          int most_replicas) {
  std::vector<chosen_layout> chosen;
  for (std::size_t i = 0; i < from.genes.size(); ++i) {
    auto found = book.layouts(from.genes[i].group);
    if (found.layouts->empty())
      continue;
    const auto last = static_cast<float>(found.layouts->size() - 1);
    const auto index = static_cast<std::size_t>(std::lround(from.genes[i].choice * last));
    chosen.push_back({i, &(*found.layouts)[index], std::move(found.slots)});
  }
  if (const auto most = static_cast<std::size_t>(most_replicas); most > 0 && chosen.size() > most) {
    std::stable_sort(chosen.begin(), chosen.end(), [](const auto& a, const auto& b) {
      return a.layout->bottleneck_s < b.layout->bottleneck_s;
    });
    chosen.resize(most);
  }
  return chosen;
}

std::vector<pipeline> place_grouping(layout_book& book, const grouping& from, int most_replicas) {
  const auto& pool = book.costs().devices();
  std::vector<int> taken(pool.machines().size(), 0);
  std::vector<pipeline> lines;
  for (const auto& one : choose_layouts(book, from, most_replicas))
    lines.push_back(place_layout(pool, from.genes[one.gene].group, one.slots, *one.layout, taken));
  return lines;
}

std::vector<grouping> seed_groupings(layout_book& book) {
  std::vector<std::vector<device_group>> ways;
  for (const int size : {8, 4, 2, 1, 1 << 20})
    ways.push_back(chunked(book, size));
  ways.push_back(by_kind(book));
  const auto regions = static_cast<std::size_t>(book.costs().devices().regions());
  constexpr std::size_t most_rows = 1024; // the matrix has a column for each
  const bool small = book.costs().devices().machines().size() <= most_rows;
  if (small)
    ways.push_back(clustered(book, regions));
  if (small && regions > 1)
    ways.push_back(clustered(book, (regions + 1) / 2));
  // All ways with one choice before the next: a short search sees some of each.
  std::vector<grouping> seeds;
  for (const float choice : {0.5F, 1.0F, 0.0F})
    for (const auto& groups : ways) {
      auto made = with_choice(groups, choice);
      if (std::find(seeds.begin(), seeds.end(), made) == seeds.end())
        seeds.push_back(std::move(made));
    }
  return seeds;
}

bool mutate(grouping& individual, const layout_book& book, random_source& random, bool across) {
  return mutation(individual, book, random, across).run();
}

device_group idle_parts(const pool& pool, const grouping& individual) {
  std::vector<int> left;
  for (const auto& machine : pool.machines())
    left.push_back(static_cast<int>(machine.devices.size()));
  for (const auto& gene : individual.genes)
    for (const auto& part : gene.group)
      left[static_cast<std::size_t>(part.machine)] -= part.count;
  device_group idle;
  for (std::size_t i = 0; i < left.size(); ++i)
    if (left[i] > 0)
      idle.push_back({static_cast<int>(i), left[i]});
  return idle;
}

} // namespace hexgen::scheduler
