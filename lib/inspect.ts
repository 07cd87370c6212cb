import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { chooseDevice, type DType, resolveDType } from './device.js';
import { SiglipError } from './errors.js';
import { loadNative, type NativeAttempt, type NativeDescription, type NativeDeviceFacts } from './native.js';
import loader from './native-loader.cjs';

/** What {@link inspect} reports; the first thing a bug report should hold. */
export interface Inspection {
  /** Version of this package. */
  version: string;
  node: string;
  platform: string;
  arch: string;
  /** C library and its version, on Linux. */
  libc?: string;
  /** Binaries that were tried, in order, and why each but the last was refused. */
  binaries: NativeAttempt[];
  /** Absent when no binary could be loaded. */
  cpu?: {
    model: string;
    /** Cores that this process may use. */
    cores: number;
    /** Instruction sets of the binary, which of them this machine has, and the one in use. */
    instructionSets: { name: string; compiled: boolean; supported: boolean }[];
    instructionSet: string;
    /** Bytes that could be allocated now. */
    availableMemory: number;
  };
  /** Devices that can be used; `facts` of GPUs. */
  devices: { name: string; description: string; facts?: NativeDeviceFacts }[];
  /** What `device: 'auto'` chooses, and why; and what `dtype: 'auto'` chooses on that device to run a model in. */
  auto?: { device: string; reason: string; dtype: DType };
  /** Whether there is a CUDA device; its name, or why there is none and what to do about it. */
  gpu: {
    available: boolean;
    reason: string;
    /** Where no CUDA device can be used: the cards that NVIDIA's driver has nevertheless, by name. */
    unusedCards?: string[];
  };
  sharp?: { version: string; libvips: string };
}

/** Describes this machine and installation: versions, binaries, instruction sets, devices. Never throws. */
export async function inspect(): Promise<Inspection> {
  const header = reportHeader();
  const manifest = JSON.parse(readFileSync(path.join(loader.packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  const inspection: Inspection = {
    version: manifest.version,
    node: process.version,
    platform: process.platform,
    arch: process.arch,
    ...(header.glibcVersionRuntime === undefined ? {} : { libc: `glibc ${header.glibcVersionRuntime}` }),
    binaries: [],
    devices: [],
    gpu: { available: false, reason: 'no native binary could be loaded' },
    ...sharpVersions(),
  };
  let description: NativeDescription;
  try {
    const { addon, attempts } = loadNative();
    inspection.binaries = attempts;
    description = addon.describe();
  } catch (error) {
    if (error instanceof SiglipError && error.code === 'ERR_SIGLIP_NATIVE_NOT_FOUND')
      inspection.binaries = error.details?.attempts as NativeAttempt[];
    else inspection.binaries.push({ path: 'the loaded addon', error: (error as Error).message });
    return inspection;
  }
  const { cores, instructionSets, instructionSet, availableMemory, devices } = description;
  const auto = chooseDevice();
  const model = header.cpus?.[0]?.model ?? 'unknown';
  const available = auto.device !== 'cpu';
  const unusedCards = available ? [] : await nvidiaCards();
  return {
    ...inspection,
    cpu: { model, cores, instructionSets, instructionSet, availableMemory },
    devices,
    auto: { ...auto, dtype: resolveDType('dtype', 'auto', auto.device, 'compute') },
    gpu: { available, reason: auto.reason, ...(unusedCards.length === 0 ? {} : { unusedCards }) },
  };
}

/** Names of the cards that the driver's own tool shows; none where there is no such tool. */
async function nvidiaCards(): Promise<string[]> {
  try {
    const query = ['--query-gpu=name', '--format=csv,noheader'];
    const { stdout } = await promisify(execFile)('nvidia-smi', query, { encoding: 'utf8', timeout: 10_000 });
    return stdout.split('\n').flatMap((line) => line.trim() || []);
  } catch {
    return [];
  }
}

function reportHeader(): { glibcVersionRuntime?: string; cpus?: { model: string }[] } {
  const report = process.report as unknown as { excludeNetwork: boolean; getReport(): unknown };
  const before = report.excludeNetwork;
  report.excludeNetwork = true; // otherwise the report looks up host names, which can take seconds
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string; cpus?: { model: string }[] } };
  report.excludeNetwork = before;
  return header;
}

function sharpVersions(): { sharp?: { version: string; libvips: string } } {
  try {
    const { versions } = loader.requirePackage('sharp') as { versions: { sharp?: string; vips: string } };
    return { sharp: { version: versions.sharp ?? 'unknown', libvips: versions.vips } };
  } catch {
    return {};
  }
}
