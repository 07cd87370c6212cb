#include "nn/tower_cache.h"

#include <dlfcn.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "cpu/cpu_features.h"
#include "nn/checkpoint_parameters.h"
#include "nn/packed_store.h"

namespace siglip2 {
namespace {

template <typename Tower>
class TowerCache {
 public:
  template <typename Load>
  std::shared_ptr<const Tower> share(const std::string& key, Load&& load) {
    // Held while loading: a second request for the same tower waits for the first instead of loading twice.
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(towers_, [](const auto& entry) { return entry.second.expired(); });
    if (const auto found = towers_.find(key); found != towers_.end())
      if (std::shared_ptr<const Tower> tower = found->second.lock()) return tower;
    std::shared_ptr<const Tower> tower = load();
    towers_[key] = tower;
    return tower;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const Tower>> towers_;
};

std::string key_of(const EncoderSize& size) {
  std::ostringstream key;
  key << size.width << ',' << size.layers << ',' << size.heads << ',' << size.intermediate << ',' << size.epsilon
      << ',';
  return key.str();
}

// Never destroyed: the executor may still be loading while the process exits.
template <typename Tower>
TowerCache<Tower>& cache() {
  static auto* const instance = new TowerCache<Tower>;
  return *instance;
}

std::string identity_of_binary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&identity_of_binary), &info) == 0 || info.dli_fname == nullptr) return {};
  try {
    const FileIdentity id = MappedFile(info.dli_fname, 0, 0).identity();
    return std::to_string(id.device) + ':' + std::to_string(id.inode) + ':' + std::to_string(id.size) + ':' +
           std::to_string(id.changed_nanoseconds);
  } catch (const std::exception&) {
    return {};
  }
}

// What tells this build of the kernels from others: nothing of what another one packed is ever used. Empty when that
// cannot be told. Taken as the binary is loaded: later its file may be another one.
const std::string binary_identity = identity_of_binary();

// The store of one tower; null where there is none. Its name follows from which files the checkpoint is, its key from
// their state, so that a checkpoint which changes does not leave one file after the other behind.
std::shared_ptr<PackedStore> open_store(const std::string& folder, const char* tower, Device& device, DType type,
                                        const Checkpoint& checkpoint) {
  if (folder.empty() || device.name() != "cpu") return nullptr;
  if (binary_identity.empty()) return nullptr;
  const std::string kind = std::string(tower) + '-' + name_of(type) + '-' + cpu::chosen_instruction_set();
  std::ostringstream name;
  name << kind << '-' << std::hex << std::hash<std::string>()(checkpoint.files_identity()) << ".packed";
  return std::make_shared<PackedStore>(
      (std::filesystem::path(folder) / name.str()).string(),
      kind + ' ' + binary_identity + ' ' + checkpoint.identity() + ' ' + checkpoint.last_changes());
}

template <typename Tower, typename Config>
std::shared_ptr<const Tower> load_tower(const Config& config, Device& device, DType type,
                                        const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                        const std::shared_ptr<const CancelToken>& cancel,
                                        const std::shared_ptr<PackedStore>& store) {
  const auto parameters = std::make_shared<CheckpointParameters>(device, type, checkpoint, threads, cancel, store);
  std::shared_ptr<const Tower> tower = std::make_shared<const Tower>(config, parameters);
  if (store != nullptr) store->save();
  return tower;
}

}  // namespace

std::shared_ptr<const VisionTower> share_vision_tower(const VisionConfig& config, Device& device, DType type,
                                                      const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                                      const std::shared_ptr<const CancelToken>& cancel,
                                                      const std::string& packed_folder) {
  std::ostringstream key;
  key << device.name() << '|' << name_of(type) << '|' << checkpoint->identity() << '|' << key_of(config.encoder)
      << config.patch_size << ',' << config.grid << ',' << config.fixed_resolution << config.has_head;
  return cache<VisionTower>().share(key.str(), [&] {
    return load_tower<VisionTower>(config, device, type, checkpoint, threads, cancel,
                                   open_store(packed_folder, "vision", device, type, *checkpoint));
  });
}

std::shared_ptr<const TextTower> share_text_tower(const TextConfig& config, Device& device, DType type,
                                                  const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                                  const std::shared_ptr<const CancelToken>& cancel,
                                                  const std::string& packed_folder) {
  std::ostringstream key;
  key << device.name() << '|' << name_of(type) << '|' << checkpoint->identity() << '|' << key_of(config.encoder)
      << config.vocabulary << ',' << config.positions << ',' << config.projection;
  return cache<TextTower>().share(key.str(), [&] {
    return load_tower<TextTower>(config, device, type, checkpoint, threads, cancel,
                                 open_store(packed_folder, "text", device, type, *checkpoint));
  });
}

}  // namespace siglip2
