{{- define "aligner-proxy.labels" -}}
app.kubernetes.io/name: aligner-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "aligner-proxy.image" -}}
{{- $repository := required "image.repository: name the image that you have pushed" .Values.image.repository -}}
{{- $digest := required "image.digest: name the image by its digest (sha256:...)" .Values.image.digest -}}
{{ $repository }}@{{ $digest }}
{{- end }}

{{- define "aligner-proxy.engineUrl" -}}
{{- if .Values.engine.enabled -}}
http://{{ .Release.Name }}-engine:8300
{{- else -}}
{{ required "engine.url: with engine.enabled=false the gateway needs the address of an engine" .Values.engine.url }}
{{- end -}}
{{- end }}

{{/* What both pods have in common: no privileges, no token, and user 10001. */}}
{{- define "aligner-proxy.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "aligner-proxy.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "aligner-proxy.mounts" -}}
- {name: config, mountPath: /etc/aligner-proxy, readOnly: true}
- {name: state, mountPath: /var/lib/aligner-proxy}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Arguments: the release, the component's name, its `state`. */}}
{{- define "aligner-proxy.volumes" -}}
- {name: config, configMap: {name: {{ .release }}-config}}
{{- if .state.persistent }}
- {name: state, persistentVolumeClaim: {claimName: {{ .release }}-{{ .component }}}}
{{- else }}
- {name: state, emptyDir: {sizeLimit: {{ .state.size }}}}
{{- end }}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 256Mi}}
{{- end }}

{{- define "aligner-proxy.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .release }}-{{ .component }}
  labels: {app.kubernetes.io/name: aligner-proxy, app.kubernetes.io/instance: {{ .release }}, app.kubernetes.io/component: {{ .component }}}
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: {{ .state.size }}}}
  {{- with .state.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
{{- end }}
